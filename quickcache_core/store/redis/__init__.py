"""Scope `redis`: one cache for many hosts, on a Redis or Valkey server."""
