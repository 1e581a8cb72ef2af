"""The SMTP protocol: grammar, streaming DATA, SASL, client machine, and the server on aiosmtpd."""
