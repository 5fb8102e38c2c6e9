package dns

import (
	"fmt"
	"net/netip"
	"strings"

	"connectd/pkg/lb"
)

// Resolution is what a task would be answered for a name, and why.
type Resolution struct {
	Name      string     // as looked up: lower case, without the last dot
	Found     bool       // false: the query goes to the task's own resolver
	V4, V6    netip.Addr // zero where the answer is NODATA
	Namespace string     // whose name it is
	Reason    string     // for people
}

// Resolve returns what the task would be answered for name.
func (r *Responder) Resolve(name string, task lb.TaskID) Resolution {
	res := Resolution{Name: strings.ToLower(strings.TrimSuffix(name, "."))}
	st := r.state.Load()
	sc := st.scopes[task]
	if sc == nil {
		res.Reason = fmt.Sprintf("no task %d is known", task)
		return res
	}
	v := view{table: st.table, scope: sc, ipv6: true}
	m, search, ok := v.find([]byte(res.Name))
	if !ok {
		res.Reason = st.unknown(res.Name, sc)
		return res
	}
	res.Found, res.V4, res.V6, res.Namespace = true, m.v4, m.v6, m.namespace
	res.Reason = fmt.Sprintf("name of namespace %s", m.namespace)
	if search != "" {
		res.Reason = fmt.Sprintf("name %s of namespace %s, by search domain %s", m.name.DNSName, m.namespace, search[1:])
	}
	for _, s := range r.attached() {
		if s.task.ID == task && !s.ipv6 && res.V6.IsValid() {
			res.V6 = netip.Addr{}
			res.Reason += "; no IPv6 in its network namespace"
		}
	}
	return res
}

// unknown says why a name is not answered for a task.
func (st *state) unknown(name string, sc *scope) string {
	var elsewhere string
	st.table.names(func(namespace, n string) {
		if n == name && (elsewhere == "" || namespace < elsewhere) {
			elsewhere = namespace
		}
	})
	if elsewhere != "" {
		return fmt.Sprintf("name of namespace %s, which is outside the task's scope (%s)", elsewhere, strings.Join(sc.namespaces, ", "))
	}
	return "not a service's name: passed on to the task's own resolver"
}
