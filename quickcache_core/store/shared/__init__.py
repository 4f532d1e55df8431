"""Scope `shared`: entries in files that all processes of a host have mapped."""
