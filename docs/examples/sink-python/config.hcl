# Keeps every event in an SQLite database. To try it, in this folder:
#   callbackd run --config config.hcl
#   curl --data '{"n":1}' http://127.0.0.1:8080/callbacks/demo
#   sqlite3 data/events.db 'SELECT time, type, body FROM events'

plugin "sqlite" {
  command = "sink.py" # relative to this file
}

source "http" "demo" {
  path = "/callbacks/demo"
}

sink "sqlite" "events" {
  config {
    path  = "data/events.db"
    label = "n is ${event.data.n}"
  }
}

pipeline "all" {
  from = [source.demo]
  to   = [sink.events]
}
