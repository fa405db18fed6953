"""The master's pages: metrics, probes and a status page, read-only, from the same document as the control socket's.

`verdict`, `metrics`, `page` and `site` are pure: the document in, text out. `server` moves the bytes. No module here
knows the pipeline, and none changes anything.
"""
