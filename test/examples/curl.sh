#!/bin/sh
# A walk through walhook's REST API with curl: makes a webhook, publishes an event and looks at what became of it.
#
#   WALHOOK_TOKEN=$(walhook token create --name curl --scope manage,publish)
#   export WALHOOK_TOKEN WALHOOK_URL=http://127.0.0.1:8080
#   sh curl.sh http://127.0.0.1:3000/hooks       # where walhook listen receives, for example
set -eu
: "${WALHOOK_TOKEN:?give a token: walhook token create --name curl --scope manage,publish}"
api="${WALHOOK_URL:-http://127.0.0.1:8080}/api/v1"
receiver="${1:?say where webhooks are to be sent, as in: sh curl.sh http://127.0.0.1:3000/hooks}"

# call METHOD PATH [BODY] prints the answer. An error of the API is printed where errors are, and ends the script. The token
# goes in on standard input: in curl's arguments other users of the machine could read it.
call() {
	answer=$(printf 'header = "Authorization: Bearer %s"\n' "$WALHOOK_TOKEN" |
		curl --config - --silent --show-error --fail-with-body --request "$1" \
			--header 'Content-Type: application/json' ${3:+--data-binary "$3"} "$api$2") || { echo "$answer" >&2; return 1; }
	echo "$answer"
}

# member NAME prints the first string of that name in the JSON object on standard input: enough for ids, not for everything.
member() { sed 's/.*[{,]"'"$1"'":"\([^"]*\)".*/\1/'; }

echo '== create a webhook'
webhook=$(call POST /webhooks/ '{
	"name": "Cardiology", "url": "'"$receiver"'", "events": ["patient.*"], "filters": {"department": "cardiology"},
	"secret": "correct horse battery staple", "max_retries": 3, "retry_delay": 60, "timeout": 30}')
echo "$webhook"
id=$(echo "$webhook" | member id)

echo '== list the active ones'
call GET '/webhooks/?status=active&limit=10'

echo '== send a test and wait for the answer'
call POST "/webhooks/$id/test" '{"event_type": "patient.created", "test_data": {"id": 1}}'

echo '== publish an event'
event=$(call POST /webhooks/events/trigger '{
	"event_type": "patient.created", "event_data": {"id": 9007199254740993, "department": "cardiology", "amount": 1200.50},
	"key": "42", "source": "clinic"}')
echo "$event"
event_id=$(echo "$event" | member event_id)

echo '== look at the calls, until that one is among them'
tries=30
until calls=$(call GET "/webhooks/$id/calls?limit=5") && echo "$calls" | grep -q "$event_id"; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ] || { echo "$event_id was not sent: GET /api/v1/replication says how far the relay is" >&2; exit 1; }
	sleep 1
done
echo "$calls"

echo '== statistics'
call GET "/webhooks/$id/stats"

echo '== pause it, change it, and remove it'
call POST "/webhooks/$id/deactivate"
call PATCH "/webhooks/$id" '{"max_retries": 5}'
call DELETE "/webhooks/$id"
