# What `node/__init__.py` loads when it is asked for, for those who read types and run nothing.
from node.client.blocking import connect_blocking as connect_blocking
from node.client.net import connect as connect
