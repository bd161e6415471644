"""Accounts, their prepaid money, and the leases under which processes spend it.

`accounts`, `credits`, `leases`, `terms` and `sweeper` load and write; `granting` and `reservations`
decide, without a database or a clock; `repository` has all the SQL.
"""
