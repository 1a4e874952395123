"""The Python client of a gateway, under trio, asyncio, or blocking."""
