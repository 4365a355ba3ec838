// The commands of Consul that the tests run against our agents. This file only names them: what they send, read and say is
// code of Consul's own packages, as they are published. The whole of `consul` would take three times as long to build,
// for its server and the clouds that it looks for others in; `services export` is left out with those.
package main

import (
	"fmt"
	"os"

	"github.com/mitchellh/cli"

	"github.com/hashicorp/consul/command/catalog"
	nodes "github.com/hashicorp/consul/command/catalog/list/nodes"
	services "github.com/hashicorp/consul/command/catalog/list/services"
	ui "github.com/hashicorp/consul/command/cli"
	"github.com/hashicorp/consul/command/config"
	configdelete "github.com/hashicorp/consul/command/config/delete"
	configlist "github.com/hashicorp/consul/command/config/list"
	configread "github.com/hashicorp/consul/command/config/read"
	configwrite "github.com/hashicorp/consul/command/config/write"
	"github.com/hashicorp/consul/command/intention"
	intentioncheck "github.com/hashicorp/consul/command/intention/check"
	intentioncreate "github.com/hashicorp/consul/command/intention/create"
	intentiondelete "github.com/hashicorp/consul/command/intention/delete"
	intentionget "github.com/hashicorp/consul/command/intention/get"
	intentionlist "github.com/hashicorp/consul/command/intention/list"
	intentionmatch "github.com/hashicorp/consul/command/intention/match"
	"github.com/hashicorp/consul/command/peering"
	peeringdelete "github.com/hashicorp/consul/command/peering/delete"
	peeringestablish "github.com/hashicorp/consul/command/peering/establish"
	peeringexported "github.com/hashicorp/consul/command/peering/exportedservices"
	peeringgenerate "github.com/hashicorp/consul/command/peering/generate"
	peeringlist "github.com/hashicorp/consul/command/peering/list"
	peeringread "github.com/hashicorp/consul/command/peering/read"
	"github.com/hashicorp/consul/command/services/deregister"
	"github.com/hashicorp/consul/command/services/exportedservices"
	"github.com/hashicorp/consul/command/services/register"
)

func main() {
	out := &ui.BasicUI{BasicUi: cli.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr}}
	commands := map[string]cli.CommandFactory{
		"catalog":                    made(catalog.New()),
		"catalog nodes":              made(nodes.New(out)),
		"catalog services":           made(services.New(out)),
		"config":                     made(config.New()),
		"config delete":              made(configdelete.New(out)),
		"config list":                made(configlist.New(out)),
		"config read":                made(configread.New(out)),
		"config write":               made(configwrite.New(out)),
		"intention":                  made(intention.New()),
		"intention check":            made(intentioncheck.New(out)),
		"intention create":           made(intentioncreate.New(out)),
		"intention delete":           made(intentiondelete.New(out)),
		"intention get":              made(intentionget.New(out)),
		"intention list":             made(intentionlist.New(out)),
		"intention match":            made(intentionmatch.New(out)),
		"peering":                    made(peering.New()),
		"peering delete":             made(peeringdelete.New(out)),
		"peering establish":          made(peeringestablish.New(out)),
		"peering exported-services":  made(peeringexported.New(out)),
		"peering generate-token":     made(peeringgenerate.New(out)),
		"peering list":               made(peeringlist.New(out)),
		"peering read":               made(peeringread.New(out)),
		"services deregister":        made(deregister.New(out)),
		"services exported-services": made(exportedservices.New(out)),
		"services register":          made(register.New(out)),
	}
	program := &cli.CLI{Args: os.Args[1:], Commands: commands, Name: "consul"}
	code, err := program.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// One process runs one command.
func made(command cli.Command) cli.CommandFactory {
	return func() (cli.Command, error) { return command, nil }
}
