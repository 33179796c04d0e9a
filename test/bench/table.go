package main

import (
	"fmt"

	"github.com/detour-dev/detour/api"
)

// oneRoute is the table that the proxy has wherever a case is not about tables: what the peers are configured for.
// TCP is said, everything else found out, as it is for a Service without an appProtocol.
func oneRoute(s site) *api.Table {
	port := api.Port{Port: s.App.Port()}
	if s.Protocol == api.ProtocolTCP {
		port.Protocol = api.ProtocolTCP
	} else {
		port.Routes = []api.Route{route(s, s.Key, "deployment/api-"+s.Key)}
	}
	return versioned(port)
}

// noRoutes is the table of a service that nobody previews.
func noRoutes(site) *api.Table { return versioned() }

// manyRoutes is the table of 200 previews, each of which has 50 keys.
func manyRoutes(s site) *api.Table {
	port := api.Port{Port: s.App.Port()}
	for preview := range 200 {
		for k := range 50 {
			port.Routes = append(port.Routes,
				route(s, fmt.Sprintf("pr-%d-%d", preview, k), fmt.Sprintf("deployment/api-%d", preview)))
		}
	}
	return versioned(port)
}

func route(s site, key, preview string) api.Route {
	return api.Route{Key: key, Preview: preview, Endpoints: []api.Endpoint{{Pod: "shop/api-preview-0", Address: s.Preview}}}
}

func versioned(ports ...api.Port) *api.Table {
	t := &api.Table{Ports: ports}
	t.Version = t.Hash()
	return t
}
