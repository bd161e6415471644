"""Invoices: closing months, and what is sent to buyers.

`making` decides what an invoice says, without a database or a clock; `closing` issues the invoices
of a month; `service` reads them; `rendering` and `pdf` show them.
"""
