"""
What operators can see of a running server: its clients, its figures, a page.
"""
