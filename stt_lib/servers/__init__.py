"""The STT servers: one small module per protocol, and the pool that chooses among them."""
