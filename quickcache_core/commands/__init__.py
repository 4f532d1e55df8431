"""What the commands of both adapters do beyond showing figures; the adapters add the words."""
