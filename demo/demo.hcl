# The configuration of `make demo`. The demo fills in the addresses of its two
# receivers by the environment; everything else is as anybody would write it.

listen {
  address = "127.0.0.1:0"
}

admin {
  address = "127.0.0.1:0"
}

source "tencent_im" "chat" {
  path        = "/callbacks/chat"
  sdk_app_ids = [1400000000]
  tokens      = [env("DEMO_TOKEN")]
}

sink "file" "audit" {
  config {
    path = "data/audit.jsonl"
  }
}

sink "slack" "ops" {
  config {
    webhook_url = env("DEMO_SLACK_URL")
    text        = "${event.type} in ${event.subject}%{if event.data.Name != null}: now called ${event.data.Name}%{endif}"
  }
}

sink "webhook" "crm" {
  config {
    url             = env("DEMO_RELAY_URL")
    signing_secrets = [env("DEMO_SIGNING_SECRET")]
  }
}

pipeline "everything" {
  from = [source.chat]
  to   = [sink.audit]
}

pipeline "groups" {
  from  = [source.chat]
  match = startswith(event.type, "Group.")
  to    = [sink.ops, sink.crm]
}
