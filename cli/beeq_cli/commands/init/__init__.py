"""``beeq init``: prints what runs and watches an app's workers: a unit, an image, manifests, alerts.

``facts`` are what the files need to know, the other modules write one kind each. Secrets are named,
never written.
"""
