# The configuration that `make run` uses. docs/configuration.md has every block
# and attribute; relative paths are relative to the folder of this file.

listen {
  address = "127.0.0.1:8080" # callbacks come in here
}

admin {
  address = "127.0.0.1:8081" # /metrics, health, API, web page
}

# Where callbacks come from. This one takes those of Tencent Cloud IM:
#   http://127.0.0.1:8080/callbacks/chat?SdkAppid=1400000000&CallbackCommand=…
source "tencent_im" "chat" {
  path        = "/callbacks/chat"
  sdk_app_ids = [1400000000]
  # tokens    = [env("CHAT_CALLBACK_TOKEN")] # checks Sign; several during rotation
}

# Where events go. This one appends each to a file, as a line of JSON.
sink "file" "audit" {
  config {
    path = "data/audit.jsonl"
  }
}

# Which events go where. Without match, all do.
pipeline "audit" {
  from = [source.chat]
  to   = [sink.audit]
}

# What follows is valid as it stands: take away the "# " of a part, and set the
# environment variables that it names.

# --- Slack: tell a channel when a public group gets another name.
#
# sink "slack" "ops" {
#   config {
#     webhook_url = env("SLACK_WEBHOOK_URL")
#     text        = "Group ${event.data.GroupId} is now called ${event.data.Name}"
#   }
#   rate_limit { per_second = 1 }
# }
#
# pipeline "group-renamed" {
#   from  = [source.chat]
#   match = event.type == "Group.CallbackAfterGroupInfoChanged" && event.data.Name != null
#   to    = [sink.ops]
# }

# --- Webhook: relay every callback to another system, signed.
#
# sink "webhook" "crm" {
#   config {
#     url             = "https://crm.example.com/callbacks"
#     signing_secrets = [env("CRM_SECRET")]
#   }
#   retry {
#     min_backoff = "1s"
#     max_backoff = "10m"
#     max_age     = "72h"
#   }
#   order_by = event.subject # events of the same subject one after another
# }
#
# pipeline "relay" {
#   from = [source.chat]
#   to   = [sink.crm]
# }

# --- HTTP: take signed webhooks of any sender.
#
# source "http" "ci" {
#   path = "/callbacks/ci"
#   type = headers["x-event-type"]
#   verify "hmac" {
#     header  = "X-Signature-256"
#     prefix  = "sha256="
#     secrets = [env("CI_SECRET")]
#   }
#   dedupe { key = headers["x-delivery-id"] } # what the sender sends again is kept once
# }
#
# pipeline "ci" {
#   from = [source.ci]
#   to   = [sink.audit]
# }
