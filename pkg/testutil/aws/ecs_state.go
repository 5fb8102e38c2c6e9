package aws

type ecsState struct{}

func newECSState() ecsState { return ecsState{} }

// ECS has the methods of ecs.Client.
type ECS struct{ from origin }

// CloudWatch has the methods of cloudwatch.Client.
type CloudWatch struct{ from origin }

// Metrics is one call.
type Metrics struct{}
