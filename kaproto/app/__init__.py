"""
The C{twistd kaserver} plugin: its command line, its settings and its service.
"""
