"""Objects that the clients return."""
