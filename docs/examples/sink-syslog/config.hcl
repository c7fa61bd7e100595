# Build the plugin, then: callbackd validate

listen {
  address = "127.0.0.1:8080"
}

admin {
  address = "127.0.0.1:8081"
}

plugin "syslog" {
  command = "./callbackd-sink-syslog"
}

source "http" "in" {
  path = "/in"
  type = headers["x-event-type"]
  verify "hmac" {
    header  = "X-Signature"
    secrets = [env("IN_SECRET", "change-me")]
  }
}

sink "syslog" "ops" {
  config {
    address = "127.0.0.1:5140"
    message = "${event.type}: ${event.body}"
  }
}

pipeline "all" {
  from = [source.in]
  to   = [sink.ops]
}
