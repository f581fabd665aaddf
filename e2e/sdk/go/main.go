// Asks for a token with azidentity twice, and prints what came as one JSON line.
//
// usage: ask default|named
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

type outcome struct {
	Version string  `json:"version"`
	AppID   string  `json:"appid"`
	Aud     string  `json:"aud"`
	FirstMs float64 `json:"first_ms"`
	AgainMs float64 `json:"again_ms"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	credential, err := credential(os.Args[1] == "named")
	if err != nil {
		return err
	}
	token, first, err := timed(credential)
	if err != nil {
		return err
	}
	if _, again, err := timed(credential); err != nil {
		return err
	} else {
		return report(token, first, again)
	}
}

func credential(named bool) (azcore.TokenCredential, error) {
	if named {
		id := azidentity.ClientID(os.Getenv("PODID_CLIENT_ID"))
		return azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ID: id})
	}
	return azidentity.NewDefaultAzureCredential(nil)
}

func timed(credential azcore.TokenCredential) (string, float64, error) {
	start := time.Now()
	options := policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}
	token, err := credential.GetToken(context.Background(), options)
	return token.Token, float64(time.Since(start).Microseconds()) / 1000, err
}

func report(token string, first, again float64) error {
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return err
	}
	found := outcome{FirstMs: first, AgainMs: again}
	if err := json.Unmarshal(payload, &found); err != nil {
		return err
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if strings.HasSuffix(module.Path, "/azidentity") {
				found.Version = strings.TrimPrefix(module.Version, "v")
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
