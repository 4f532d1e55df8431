"""How a miss is filled."""
