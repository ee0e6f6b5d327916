package webhook

import "slices"

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// guardedPorts are where databases, brokers and cluster managers listen that take HTTP, or mistake it for
// commands, and often ask nobody who they are. None lies in the range that Linux hands out to clients.
var guardedPorts = []uint16{
	1433, 1434, // SQL Server
	1521,       // Oracle
	2049,       // NFS
	2181,       // ZooKeeper
	2375, 2376, // Docker
	2379, 2380, // etcd
	3306,             // MySQL
	4222, 6222, 8222, // NATS
	4369, 5671, 5672, 15672, // RabbitMQ
	5432, 6432, // Postgres, PgBouncer
	5984,       // CouchDB
	6379, 6380, // Redis
	6443, 10250, // Kubernetes
	9042, 9160, // Cassandra
	8086,       // InfluxDB
	8500, 8600, // Consul
	9092,       // Kafka
	9200, 9300, // Elasticsearch
	11211,        // memcached
	16379, 26379, // Redis Cluster, Sentinel
	26257,                      // CockroachDB
	27017, 27018, 27019, 28017, // MongoDB
	28015, 29015, // RethinkDB
}

// DefaultPort reports whether requests may go to a port when the operator lists none: 80, 443 and those from
// 1024 on, except the well-known ones of databases and brokers.
func DefaultPort(port uint16) bool {
	return port == 80 || port == 443 || port >= 1024 && !slices.Contains(guardedPorts, port)
}

func (p *Policy) allowsPort(port uint16) bool {
	if len(p.AllowPorts) == 0 {
		return DefaultPort(port)
	}
	return slices.ContainsFunc(p.AllowPorts, func(r PortRange) bool { return r.First <= port && port <= r.Last })
}

// portRule says why a port is refused.
func portRule(allowed []PortRange, port uint16) string {
	switch {
	case len(allowed) > 0:
		return "not in delivery.allow_ports"
	case slices.Contains(guardedPorts, port):
		return "databases and brokers listen there"
	}
	return "below 1024 and neither 80 nor 443"
}
