package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"nuncio/internal/haproxy"
)

// ErrUnreachable means that no nuncio answers on the socket.
var ErrUnreachable = errors.New("no nuncio answers")

// RefusedError is the answer of a running nuncio that refuses an order; Message says why.
type RefusedError struct {
	Message string
}

func (e *RefusedError) Error() string { return e.Message }

// Client asks the nuncio whose control socket is at one path.
type Client struct {
	path string
	http *http.Client
}

// NewClient makes a Client; it opens nothing.
func NewClient(path string) *Client {
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// Get asks for a document and decodes it into answer.
func (c *Client) Get(ctx context.Context, path string, answer any) error {
	return c.ask(ctx, http.MethodGet, path, nil, answer)
}

// Do gives an order and decodes its answer.
func (c *Client) Do(ctx context.Context, order string, args url.Values, answer any) error {
	return c.ask(ctx, http.MethodPost, "/v1/do/"+url.PathEscape(order), args, answer)
}

// DesiredFiles returns what would run now if nothing held it back, with its secrets.
func (c *Client) DesiredFiles(ctx context.Context) (haproxy.Files, error) {
	var texts map[string][]byte
	if err := c.Do(ctx, orderFiles, nil, &texts); err != nil {
		return haproxy.Files{}, err
	}
	return haproxy.NewFiles(texts)
}

func (c *Client) ask(ctx context.Context, method, path string, args url.Values, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://nuncio"+path, strings.NewReader(args.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.http.Do(req)
	if err != nil {
		if ended := context.Cause(ctx); ended != nil {
			return fmt.Errorf("ask nuncio at %s: %w", c.path, ended)
		}
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err
		}
		return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var no errorDoc
		if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&no) != nil || no.Error == "" {
			no.Error = "nuncio answers " + resp.Status
		}
		return &RefusedError{no.Error}
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("answer of nuncio at %s: %w", c.path, err)
	}
	return nil
}
