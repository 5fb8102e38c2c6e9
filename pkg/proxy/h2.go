package proxy

type h2Client struct{}

func (*h2Client) event() {}
func (*h2Client) cut()   {}

func (c *client) speaksHTTP2() bool { return false }
