// Package certs reads PEM files: which certificate one holds and whether its key fits, whether any text holds a private key,
// and how to show such a file or a message about it without the key.
//
// It promises that nothing it returns holds a private key, unless it was asked for the whole unit with Unit.PEM. It knows
// neither HAProxy nor where the bytes come from.
//
//	unit, err := certs.Parse(text)    // err: broken, no key, or a key of another certificate
//	fmt.Println(unit.Names, unit.NotAfter)
//	fmt.Println(certs.Describe(text)) // 905 bytes, sha256 3f1c0a..., certificate www.example.com until 2027-01-23
package certs
