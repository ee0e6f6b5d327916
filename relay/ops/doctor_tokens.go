package ops

import (
	"context"
	"fmt"
)

// lookAtTokens tells whether anybody can use API and dashboard, and whose token has expired.
func (d *doctor) lookAtTokens(ctx context.Context) error {
	if !d.API {
		return nil
	}
	type row struct {
		Valid   bool
		Expired []string
	}
	r, err := askOne[row](ctx, d, `SELECT count(*) FILTER (WHERE expires_at IS NULL OR expires_at > now()) > 0,
		coalesce(array_agg(name ORDER BY expires_at DESC) FILTER (WHERE expires_at <= now()), '{}')
		FROM outbox.api_tokens WHERE revoked_at IS NULL`)
	if err != nil {
		return fmt.Errorf("look at the tokens: %w", err)
	}
	if !r.Valid && !d.Token {
		d.found("api_token_missing", "nobody can use API and dashboard: there is no valid token",
			"walhook token create --name NAME --scope read,manage, or set WALHOOK_API_TOKEN (without both: WALHOOK_API_ENABLED=false)")
	}
	if len(r.Expired) > 0 {
		d.found("api_token_expired", fmt.Sprintf("%d tokens have expired: %s", len(r.Expired), someOf(r.Expired)),
			"walhook token revoke NAME, and walhook token create for who still needs one")
	}
	return nil
}
