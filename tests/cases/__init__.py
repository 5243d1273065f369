"""Networks that users brought."""
