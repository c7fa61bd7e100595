# Settings to check the sink with: callbackd plugin test ./sink.py --config contract.hcl

sink "sqlite" "checked" {
  config {
    path  = "${env("CALLBACKD_TEST_DIR")}/events.db"
    label = event.subject
  }
}
