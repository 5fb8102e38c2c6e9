package datapath

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v2 -I/usr/include/x86_64-linux-gnu" -type addr -type histogram -type event -type datagram -type datagram_key -type connection -type slot -type endpoint -type endpoint_stats -type service_stats -type task -type settings -type frontend -type frontend_key -type frontend_flag -type resolver -type resolver_key -type forwarder -type admission -type admission_key -type task_endpoint -type outcome -type failure connect ../../bpf/connect.bpf.c
//go:generate go tool bpf2go -no-global-types -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v2 -I/usr/include/x86_64-linux-gnu" forward ../../bpf/forward.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v2 -I/usr/include/x86_64-linux-gnu" -type http_key -type http_stats direct ../../bpf/direct.bpf.c
