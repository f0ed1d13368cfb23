"""The objects that the operator makes, as plain documents. Pure."""
