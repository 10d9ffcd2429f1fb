"""``beeq init``: prints files that run and watch an app's workers: a unit, an image, manifests, alerts.

``facts`` holds the files' parameters, the other modules write one kind each. Secrets are named, never
written.
"""
