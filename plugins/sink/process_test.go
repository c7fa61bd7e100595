package sink

func runAsPlugin() bool { return false }
