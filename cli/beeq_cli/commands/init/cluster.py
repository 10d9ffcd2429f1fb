"""Files for a cluster: a Kubernetes Deployment, and KEDA's rules by which it grows with the queues."""

from collections.abc import Sequence

from beeq_cli.commands.init.facts import KILL_S, AppFacts, QueueFacts, quoted, quoted_list

_REDIS = """\
# Redis is named by a Secret, which is made apart:
#   kubectl create secret generic {name}-redis --from-literal=url=redis://:PASSWORD@HOST:6379/0 \\
#     --from-literal=address=HOST:6379 --from-literal=password=PASSWORD
"""

_DEPLOYMENT = """\
# {what}: kubectl apply -f k8s.yaml
{secret}apiVersion: apps/v1
kind: Deployment
metadata:
  name: "{name}"
  labels:
    app.kubernetes.io/name: "{name}"
spec:
  replicas: 2
  selector:
    matchLabels:
      app.kubernetes.io/name: "{name}"
  template:
    metadata:
      labels:
        app.kubernetes.io/name: "{name}"
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "{metrics_port}"
        prometheus.io/path: /metrics
    spec:
      terminationGracePeriodSeconds: {kill_s}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: worker
          image: {image}
          args: {command}
          env:
            - name: REDIS_URL
              valueFrom:
                secretKeyRef:
                  name: "{name}-redis"
                  key: url
          ports:
            - name: metrics
              containerPort: {metrics_port}
            - name: health
              containerPort: {health_port}
          startupProbe:
            httpGet:
              path: /startupz
              port: health
            periodSeconds: 2
            failureThreshold: 30
          readinessProbe:
            httpGet:
              path: /readyz
              port: health
            periodSeconds: 10
          livenessProbe:
            httpGet:
              path: /livez
              port: health
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          resources:
            requests:
              cpu: 100m
              memory: 128Mi
          securityContext:
            allowPrivilegeEscalation: false
            capabilities:
              drop: ["ALL"]
"""

_KEDA = """\
# The Deployment {name} grows with what waits and runs: kubectl apply -f keda.yaml (KEDA 2)
{secret}# Of a database other than 0, say so in databaseIndex; with TLS, enableTLS: "true".
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  name: "{name}-redis"
spec:
  secretTargetRef:
    - parameter: address
      name: "{name}-redis"
      key: address
    - parameter: password
      name: "{name}-redis"
      key: password
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: "{name}"
spec:
  scaleTargetRef:
    name: "{name}"
  # At least one: delayed jobs, and those of workers that died, need a worker to come back to the queue.
  minReplicaCount: 1
  maxReplicaCount: 10
  pollingInterval: 15
  cooldownPeriod: 120
  triggers:
{triggers}"""

_TRIGGER = """\
    - type: redis
      metadata:
        listName: {list_name}
        listLength: "{places}"
        databaseIndex: "0"
      authenticationRef:
        name: "{name}-redis"
"""


def deployment(facts: AppFacts) -> str:
    """Return the manifest of the workers."""
    return _DEPLOYMENT.format(
        what=facts.what,
        secret=_REDIS.format(name=facts.name),
        name=facts.name,
        metrics_port=facts.metrics_port,
        health_port=facts.health_port,
        image=quoted(facts.image),
        command=quoted_list(facts.command(bind="0.0.0.0")),  # noqa: S104 - kubelet asks the pod's own address
        kill_s=KILL_S,
    )


def scaled_object(facts: AppFacts, queues: Sequence[QueueFacts]) -> str:
    """Return KEDA's rules: a pod for each so many jobs as a pod runs at once, waiting or active."""
    triggers = [
        _TRIGGER.format(
            list_name=quoted(f"{queue.prefix}:{queue.name}:{state}"),
            places=(facts.concurrency or queue.concurrency) * facts.processes,
            name=facts.name,
        )
        for queue in queues
        for state in ("waiting", "active")
    ]
    return _KEDA.format(name=facts.name, secret=_REDIS.format(name=facts.name), triggers="".join(triggers))
