// Command listen is a syslog server to try things with: it prints each message
// that comes to the address in its argument.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening")
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go show(conn)
	}
}

// show prints the messages of one connection.
func show(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		var length int64
		if _, err := fmt.Fscanf(in, "%d ", &length); err != nil {
			return
		}
		message, err := io.ReadAll(io.LimitReader(in, length))
		if err != nil {
			return
		}
		fmt.Printf("%s\n", message)
	}
}
