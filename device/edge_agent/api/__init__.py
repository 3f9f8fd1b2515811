"""What the service answers: predictions and feedback over HTTP and MQTT, metrics, health.

Enter at `web.application` (all routes, as openapi.json describes them) and `mqtt.Mqtt`; both ask through
`predictions`. `http_server` sets the limits of a server, `edge_agent.service.endpoints` opens its sockets.

May import `monitoring` and what stands below it.
"""
