"""Other ways to serve the same model, each in an environment of its own.

`catalogue` lists them, `environments` builds what they need, `running` starts and ends them, and
`comparison` measures them. Each folder has an app and its pinned requirements; the apps share
`common/estimator.py`, run in the rival's own environment and import nothing of Tollgate.
"""
