package main

import (
	"os"

	"github.com/hashicorp/consul/command/cli"
	configdelete "github.com/hashicorp/consul/command/config/delete"
	configlist "github.com/hashicorp/consul/command/config/list"
	configread "github.com/hashicorp/consul/command/config/read"
	configwrite "github.com/hashicorp/consul/command/config/write"
	peerexported "github.com/hashicorp/consul/command/peering/exportedservices"
	svcsexported "github.com/hashicorp/consul/command/services/exportedservices"
	mcli "github.com/mitchellh/cli"
)

func main() {
	ui := &cli.BasicUI{BasicUi: mcli.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr}}
	commands := map[string]mcli.CommandFactory{
		"config delete": func() (mcli.Command, error) { return configdelete.New(ui), nil },
		"config list":   func() (mcli.Command, error) { return configlist.New(ui), nil },
		"config read":   func() (mcli.Command, error) { return configread.New(ui), nil },
		"config write":  func() (mcli.Command, error) { return configwrite.New(ui), nil },
		"peering exported-services":  func() (mcli.Command, error) { return peerexported.New(ui), nil },
		"services exported-services":  func() (mcli.Command, error) { return svcsexported.New(ui), nil },
	}
	cli := &mcli.CLI{Args: os.Args[1:], Commands: commands, Name: "consul"}
	code, err := cli.Run()
	if err != nil {
		code = 1
	}
	os.Exit(code)
}
