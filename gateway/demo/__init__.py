"""The demonstration network: what the gateway talks to on loopback in the demo and the tests."""
