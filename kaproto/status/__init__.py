"""
Monitoring of a running server: its clients, its metrics, and a status page.
"""
