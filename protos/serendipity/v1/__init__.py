"""Messages and stubs generated from the protos beside this file (`make protos`)."""
