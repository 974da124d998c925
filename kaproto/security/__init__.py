"""
Who may connect: TLS, certificates, logins, limits on unauthenticated clients.
"""
