# Login shells find the site's own modules.
export MODULEPATH="${MODULEPATH:+$MODULEPATH:}/opt/hpc/modulefiles"
