"""A Slurm cluster of this machine alone, with the daemons of Debian's packages slurmctld and slurmd."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile

import server

CONFIGURATION = """
ClusterName=visage
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# More tasks than cores.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
NodeName={name} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """The reason why no cluster can be started here, or None."""
    programs = [name for name in ("slurmctld", "slurmd", "srun") if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")]
    if programs:
        return "install {} (Debian: slurmctld slurmd slurm-client)".format(", ".join(programs))
    if os.geteuid() != 0:
        return "slurmd starts tasks as root only"
    return None


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Cluster:
    """Its configuration is in SLURM_CONF until `close`."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="visage-slurm-")
        self.daemons = []
        os.mkdir(os.path.join(self.directory, "state"))
        configuration = os.path.join(self.directory, "slurm.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(name=socket.gethostname().split(".")[0], controller=free_port(), node=free_port(), directory=self.directory))
        os.environ["SLURM_CONF"] = configuration
        try:
            for daemon in ("slurmctld", "slurmd"):
                program = shutil.which(daemon, path=os.environ["PATH"] + ":/usr/sbin")
                self.daemons.append(subprocess.Popen([program, "-D"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            server.wait_for(self.is_ready, "the node of Slurm is idle", 60)
        except BaseException:
            self.close()
            raise

    def is_ready(self):
        done = subprocess.run(["sinfo", "--noheader", "--format=%T"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True)
        return done.stdout.strip() == "idle"

    def close(self):
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)
        os.environ.pop("SLURM_CONF", None)
        shutil.rmtree(self.directory, ignore_errors=True)
