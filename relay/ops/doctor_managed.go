package ops

import (
	"context"
	"fmt"
	"strings"
)

// service is a managed Postgres, how it is recognised, and how logical decoding is switched on there.
type service struct {
	name     string
	settings []string // which only it has
	roles    []string // likewise
	command  string   // switches logical decoding on
	note     string
}

// services are recognised by what they leave in every database.
var services = []service{
	{"Amazon RDS or Aurora", []string{"rds.logical_replication", "rds.extensions"}, []string{"rds_superuser", "rds_replication"},
		"aws rds modify-db-parameter-group --db-parameter-group-name <group> --parameters ParameterName=rds.logical_replication,ParameterValue=1,ApplyMethod=pending-reboot, then aws rds reboot-db-instance --db-instance-identifier <instance> (Aurora: the cluster's parameter group)",
		"the relay's role takes GRANT rds_replication TO <role> instead of the attribute REPLICATION; an RDS Proxy carries no replication"},
	{"Google Cloud SQL", []string{"cloudsql.logical_decoding", "cloudsql.iam_authentication"}, []string{"cloudsqlsuperuser"},
		"gcloud sql instances patch <instance> --database-flags=cloudsql.logical_decoding=on (restarts it; name the other flags as well)",
		"settings are database flags of the instance"},
	{"Google AlloyDB", []string{"alloydb.logical_decoding", "alloydb.iam_authentication"}, []string{"alloydbsuperuser"},
		"gcloud alloydb instances update <instance> --cluster=<cluster> --region=<region> --database-flags=alloydb.logical_decoding=on (restarts it)",
		"settings are database flags of the instance"},
	{"Azure Database for PostgreSQL", []string{"azure.extensions", "azure.allow_extensions"}, []string{"azure_pg_admin", "azuresu"},
		"az postgres flexible-server parameter set --resource-group <group> --server-name <server> --name wal_level --value logical, then az postgres flexible-server restart",
		"its built-in PgBouncer listens on port 6432: connect to 5432"},
	{"Neon", []string{"neon.timeline_id", "neon.tenant_id"}, []string{"neon_superuser"},
		"switch logical replication on in the project's settings (it cannot be switched off again)",
		"connect to the host without \"-pooler\"; Neon drops a slot that has been inactive for long, and a connected relay keeps the compute awake"},
	{"Supabase", nil, []string{"supabase_admin", "supabase_replication_admin"},
		"wal_level is logical from the start",
		"connect directly to db.<project>.supabase.co:5432, not through the pooler on 6543"},
	{"Aiven", []string{"aiven.pg_security_agent"}, []string{"_aiven"},
		"wal_level is logical from the start",
		"connect to the service's port, not to a connection pool's"},
	{"DigitalOcean", nil, []string{"doadmin"},
		"wal_level is logical from the start",
		"connect to the cluster's own port 25060, not to a connection pool's on 25061"},
}

// recognise finds the service that the server belongs to.
func (d *doctor) recognise(ctx context.Context) (*service, error) {
	type row struct{ Settings, Roles []string }
	var names, roles []string
	for _, s := range services {
		names, roles = append(names, s.settings...), append(roles, s.roles...)
	}
	there, err := askOne[row](ctx, d, `SELECT ARRAY(SELECT n FROM unnest($1::text[]) AS n WHERE current_setting(n, true) IS NOT NULL),
		ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY($2))`, names, roles)
	if err != nil {
		return nil, fmt.Errorf("look for signs of a managed service: %w", err)
	}
	for i, s := range services {
		if anyOf(s.settings, there.Settings) || anyOf(s.roles, there.Roles) {
			return &services[i], nil
		}
	}
	return nil, nil
}

func anyOf(wanted, there []string) bool {
	for _, w := range wanted {
		for _, t := range there {
			if w == t {
				return true
			}
		}
	}
	return false
}

// lookAtService tells how things are done there.
func (d *doctor) lookAtService(ctx context.Context) error {
	s, err := d.recognise(ctx)
	if err != nil || s == nil {
		return err
	}
	d.found("managed_service", fmt.Sprintf("this looks like %s: %s", s.name, s.note),
		"settings that this report gives as ALTER SYSTEM are changed there; logical decoding: "+s.command)
	return nil
}

// levelRemedy is how wal_level is raised on this server.
func (d *doctor) levelRemedy(ctx context.Context) string {
	if s, err := d.recognise(ctx); err == nil && s != nil && !strings.HasPrefix(s.command, "wal_level is") {
		return s.command
	}
	return alter("wal_level", "logical") + andRestart
}
