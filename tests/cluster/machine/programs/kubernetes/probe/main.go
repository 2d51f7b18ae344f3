// A program for the pods of tests. It waits, listens, connects or looks up names:
//
//	probe                          wait for SIGTERM, as the first container of every pod does
//	probe serve PORT...            answer at these ports of all addresses with the name of this machine
//	probe dial SECONDS HOST:PORT...    print as JSON what each target answers, or the error
//	probe resolve NAME...          print as JSON the addresses of each name, or the error
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	verb, rest := "", []string{}
	if len(os.Args) > 1 {
		verb, rest = os.Args[1], os.Args[2:]
	}
	switch verb {
	case "":
		wait()
	case "serve":
		for _, port := range rest {
			serve(port)
		}
		wait()
	case "dial":
		limit, err := time.ParseDuration(rest[0] + "s")
		if err != nil {
			fail(err)
		}
		report(rest[1:], func(target string) string { return dial(target, limit) })
	case "resolve":
		report(rest, resolve)
	default:
		fail(fmt.Errorf("no verb %q", verb))
	}
}

func wait() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}

func serve(port string) {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		fail(err)
	}
	name, _ := os.Hostname()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				fail(err)
			}
			go func() {
				_, _ = io.WriteString(connection, name)
				_ = connection.Close()
			}()
		}
	}()
}

func dial(target string, limit time.Duration) string {
	connection, err := net.DialTimeout("tcp", target, limit)
	if err != nil {
		return "error: " + err.Error()
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(limit))
	answer, err := io.ReadAll(connection)
	if err != nil && len(answer) == 0 {
		return "silent: " + err.Error()
	}
	return "answer: " + string(answer)
}

func resolve(name string) string {
	addresses, err := net.LookupHost(name)
	if err != nil {
		return "error: " + err.Error()
	}
	return strings.Join(addresses, " ")
}

// report asks about all items at once.
func report(items []string, ask func(string) string) {
	found := map[string]string{}
	var lock sync.Mutex
	var group sync.WaitGroup
	for _, item := range items {
		group.Add(1)
		go func() {
			defer group.Done()
			answer := ask(item)
			lock.Lock()
			defer lock.Unlock()
			found[item] = answer
		}()
	}
	group.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(found)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
