"""Archives: the usage events of months that were invoiced long ago, in Parquet files.

`service` archives a month: it writes the files, records them, and then deletes the events.
`reading` finds single events in them, and `summing` adds up all of them for `billing verify`.
"""
