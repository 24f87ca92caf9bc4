"""Small processes that turn what a tool does into events. A producer never sees NATS."""
