// Replays a firmware event log with go-eventlog and says what it makes of it.
//
// Input: {"log": base64, "banks": {"sha256": {"0": hexadecimal, ...}}, "state": true or false}.
// Output: for each bank whether the registers replay, and, where they do and it is asked, the boot state.
package main

import (
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"log"
	"os"

	"github.com/google/go-eventlog/extract"
	pb "github.com/google/go-eventlog/proto/state"
	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
)

type request struct {
	Log   string                    `json:"log"`
	Banks map[string]map[int]string `json:"banks"`
	State bool                      `json:"state"`
}

type answer struct {
	Refused      string   `json:"refused,omitempty"`
	Replays      bool     `json:"replays"`
	SecureBoot   *bool    `json:"secure_boot"`
	Applications []string `json:"applications"`
	Files        []string `json:"files"`
	CommandLine  *string  `json:"command_line"`
}

var algorithms = map[string]pb.HashAlgo{
	"sha1":   pb.HashAlgo_SHA1,
	"sha256": pb.HashAlgo_SHA256,
	"sha384": pb.HashAlgo_SHA384,
}

func judge(raw []byte, name string, values map[int]string, state bool) (answer, error) {
	algorithm, err := algorithms[name].CryptoHash()
	if err != nil {
		return answer{}, err
	}
	var registers []register.MR
	for index, value := range values {
		digest, err := hex.DecodeString(value)
		if err != nil {
			return answer{}, err
		}
		registers = append(registers, register.PCR{Index: index, Digest: digest, DigestAlg: algorithm})
	}
	parsed, err := tcg.ParseEventLog(raw, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		return answer{Refused: err.Error()}, nil
	}
	events, err := parsed.Verify(registers)
	if err != nil {
		return answer{}, nil
	}
	given := answer{Replays: true}
	if state {
		given.describe(events, algorithm)
	}
	return given, nil
}

func (given *answer) describe(events []tcg.Event, algorithm crypto.Hash) {
	// An error is about one part of the state; the others are filled.
	state, _ := extract.FirmwareLogState(events, algorithm, extract.TPMRegisterConfig, extract.Opts{Loader: extract.GRUB})
	if state.GetSecureBoot() != nil {
		given.SecureBoot = &state.SecureBoot.Enabled
	}
	for _, application := range state.GetEfi().GetApps() {
		given.Applications = append(given.Applications, hex.EncodeToString(application.Digest))
	}
	for _, file := range state.GetGrub().GetFiles() {
		given.Files = append(given.Files, hex.EncodeToString(file.Digest))
	}
	if state.GetLinuxKernel() != nil {
		given.CommandLine = &state.LinuxKernel.CommandLine
	}
}

func main() {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		log.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(asked.Log)
	if err != nil {
		log.Fatal(err)
	}
	answers := map[string]answer{}
	for name, values := range asked.Banks {
		if answers[name], err = judge(raw, name, values, asked.State); err != nil {
			log.Fatal(err)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		log.Fatal(err)
	}
}
